"""The reproduction of one paper, arXiv 1706.02609: tables, figures, the page."""
