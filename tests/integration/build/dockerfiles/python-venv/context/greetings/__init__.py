import sys
from importlib.metadata import version


def main() -> None:
    print("greetings", version("greetings"), "from", sys.prefix)
