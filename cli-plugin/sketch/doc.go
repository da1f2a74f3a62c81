// Package sketch draws what a table cannot show: a network with its hosts,
// endpoints and rules as a tree or a graph, and a connection hop by hop. It
// turns records of the API into lines of text, as wide and as colourful as it
// is told, and calls nothing.
//
// Design page: docs/design/trace.md.
package sketch
