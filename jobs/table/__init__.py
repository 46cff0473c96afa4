"""The label table: its schema, its files, and the images and masks behind its rows."""
