"""The only definition of all parameters: pydantic models, one module per stage. Schema, defaults and docs come from them."""
