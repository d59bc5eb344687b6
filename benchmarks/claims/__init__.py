"""The claims of the article: a module per claim, with its trials, its tables and its picture."""
