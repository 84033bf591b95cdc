"""One module for each change of the schema, in the order of their numbers. A released one is never edited."""
