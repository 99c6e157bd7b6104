"""The health check: the page's own interface answers, and with it the store."""

import http.client

connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=2)
connection.request("GET", "/health")
answer = connection.getresponse()
answer.read()  # else the server sees its answer thrown away
raise SystemExit(0 if answer.status == 200 else 1)
