"""The running half: the machine behind a transport, with the base install."""
