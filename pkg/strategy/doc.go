// Package strategy reads members of placement chains as users write them: a
// short name, a class name of the old Clocker, or either with options. It
// gives them one form, [model.Strategy], which pkg/placement carries out, and
// says what is wrong with an option. It never looks at hosts.
//
// Design page: docs/design/placement.md.
package strategy
