"""Networks: links, addresses, firewall, published ports and names; knows a namespace, not a container."""
