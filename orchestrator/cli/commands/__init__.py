"""One module a verb: `COMMAND` (or `GROUP`) declares its options, `run` carries it out."""
