module spvn

go 1.25.0
