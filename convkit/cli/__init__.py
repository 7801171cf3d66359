"""The command line: one module for each command, which parses, calls the public function, and renders."""
