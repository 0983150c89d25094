"""Objects from the tables of a configuration, and what is wrong with a table or an argument, in words."""
