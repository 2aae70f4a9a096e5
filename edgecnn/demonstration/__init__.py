"""Results of `edgecnn demo` for the shipped networks and photographs."""
