"""Rules of the network service: addresses, names of kernel objects, DNS answers."""
