"""The plugin host: finds, isolates, disables, lists and scaffolds plugins."""
