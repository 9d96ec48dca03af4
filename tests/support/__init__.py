"""What journeys and fault tests share: an installation on real servers, the command line as a user runs it, oracles and scanners."""
