"""The daemon's HTTP client, on the standard library's cheapest modules alone.

It is imported by every command, so its import cost is part of every command's time:
`http.client` alone would take twice as long as a whole `bay ps`.
"""
