"""Compose files in, a validated and canonical project out.

`specs.loader.load_project` is the way in, `specs.project` holds the models, `specs.errors` what
is wrong with a spec, `specs.canonical` the form that is stored, compared and hashed.
"""
