"""One model, or a stack of them, from one row of the table: settings, privacy, steps, folder."""
