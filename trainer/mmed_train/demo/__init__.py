"""The whole way from raw text to a table, offline: `python -m mmed_train.demo FOLDER`. All texts are the project's own."""
