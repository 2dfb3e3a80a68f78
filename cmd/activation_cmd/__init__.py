"""The commands: foobard, client, socket-activate. Each uses the public names of ``activation`` only."""
