"""The service: admit, route, store and deliver CPIM operations; knows no protocol."""
