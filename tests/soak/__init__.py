"""Long trials of the daemon, each a program with its figures in docs/daemon.md: `python -m tests.soak.NAME --help`."""
