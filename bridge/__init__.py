"""Networks: links, addresses, rules, ports and names; knows a namespace, not a container."""
