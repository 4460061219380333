"""Labels of an asset: loading, rounds, label sets, taxonomy, edit commands, part colours."""
