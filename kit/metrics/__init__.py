"""Average precision, its uncertainty, and the causes of errors: functions of tables, without files or networks."""
