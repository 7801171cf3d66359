"""Data of every kind that an option can name, brought into one form: ``.npz`` files whose arrays are rows."""
