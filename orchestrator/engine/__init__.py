"""The imperative shell of the planning core: the only package that speaks to runtime and bridge."""
