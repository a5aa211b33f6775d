"""How a step and its parameters are declared, and what follows from that: formulas, costs, tables of the docs."""
