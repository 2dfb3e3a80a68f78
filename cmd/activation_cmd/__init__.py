"""The commands: foobard, client, socket-activate, minirunc. Each uses the public names of ``activation`` only."""
