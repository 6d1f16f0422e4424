"""Plugins that do everything wrong that a plugin can do."""
