from collections.abc import Callable


def application(environ: dict[str, str], start_response: Callable[..., object]) -> list[bytes]:
    start_response("200 OK", [])
    return [b"ok"]
