"""Engine to a server's directory layout: one file per server. Importing this loads no heavy library."""
