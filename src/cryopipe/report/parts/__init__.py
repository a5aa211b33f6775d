"""Parts of those sections of the report that would be too long for one module."""
