package control

// version is set when the library is linked (setup.py), to the version of the package.
var version = "development"
