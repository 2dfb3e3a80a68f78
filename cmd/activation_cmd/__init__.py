"""The commands, a folder for each: foobard, client, socket_activate, minirunc.

They use the public names of ``activation`` only, and what they share is in ``common``. No command uses another.
"""
