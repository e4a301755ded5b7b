"""The network service's hands: namespaces, links, nftables, sockets."""
