"""Files of a public archive: names, lists and downloads."""
