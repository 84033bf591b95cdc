"""One module for each change of the schema, in the order of their numbers. A released one is never edited.

A number is its series and its place in it. What an older program could not work with begins another series. ADR-0021.
"""
