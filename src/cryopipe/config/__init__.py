"""The one definition of every parameter: pydantic models, one module a stage; schema, defaults and docs come from them."""
