"""The report: one typed document, and its renderers."""
