"""From a recipe to built components joined into what trains: the plan, the assembly and the recipe's JSON Schema."""
