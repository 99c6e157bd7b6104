"""The daemon: keeps what was asked for, answers the command line, and survives being killed."""
