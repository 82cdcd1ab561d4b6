"""Code that both framework packages share: fields, arguments, and holding, sharing and pickling an engine."""
