"""Speed of safemesa against its own matrix products and against its peers; see docs/speed.md."""
