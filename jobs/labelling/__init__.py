"""The label job: manifest, units, pipeline, commit, publish, and the books that must balance."""
