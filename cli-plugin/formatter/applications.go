package formatter

import (
	"strconv"

	"github.com/docker/cli/cli/command/formatter"

	"clocker.io/clocker/pkg/api"
)

const applicationTable = "table {{.Name}}\t{{.Status}}\t{{.Services}}\t{{.Replicas}}\t{{.Release}}\t{{.Updated}}"

// Applications renders `docker clocker ls`.
func Applications(o Options, apps []api.Application) error {
	header := formatter.SubHeaderContext{
		"Name": "NAME", "Title": "TITLE", "Dialect": "DIALECT", "Status": "STATUS", "Services": "SERVICES",
		"Replicas": "REPLICAS", "Release": "RELEASE", "Created": "CREATED", "Updated": "UPDATED", "Error": "ERROR",
	}
	return write(o, applicationTable, "{{.Name}}", header, apps, func(a api.Application) formatter.SubContext {
		return &applicationRow{o: o, a: a}
	})
}

type applicationRow struct {
	formatter.HeaderContext
	o Options
	a api.Application
}

func (r *applicationRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

func (r *applicationRow) Name() string     { return r.a.Name }
func (r *applicationRow) Title() string    { return r.a.Title }
func (r *applicationRow) Dialect() string  { return r.a.Dialect }
func (r *applicationRow) Services() string { return strconv.Itoa(r.a.Services) }
func (r *applicationRow) Release() string  { return strconv.Itoa(r.a.Release) }
func (r *applicationRow) Created() string  { return ago(r.o.Now, r.a.CreatedAt) }
func (r *applicationRow) Updated() string  { return ago(r.o.Now, r.a.UpdatedAt) }
func (r *applicationRow) Error() string    { return r.a.Error }

// Replicas is how many run of how many are wanted: "2/3".
func (r *applicationRow) Replicas() string {
	return strconv.Itoa(r.a.Running) + "/" + strconv.Itoa(r.a.Replicas)
}

// Status is the application's status with its error, if any.
func (r *applicationRow) Status() string {
	if r.a.Error == "" {
		return r.a.Status
	}
	return r.o.cell(r.a.Status + ": " + r.a.Error)
}
