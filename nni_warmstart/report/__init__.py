"""HTML page about one or several searches."""
