"""The command init: it looks at the files of a folder and writes a recipe that fits them."""
