"""Coefficients of the methods, one module a family, named like the stepper in `jaxdiffeq.steppers` that runs them."""
