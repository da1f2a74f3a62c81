package policy

import (
	"clocker.io/clocker/pkg/finding"
)

var _ finding.Checker = (*Table)(nil)

// Check compares the table in the kernel with what it must be, and looks for
// the rules in DOCKER-USER.
func (t *Table) Check(fix bool) ([]finding.Finding, error) {
	var all []finding.Finding
	if err := t.check(true); err != nil {
		f := finding.Finding{Part: "filter", Subject: "table inet " + TableName, Text: err.Error()}
		if fix {
			if err := t.Load(); err != nil {
				return nil, err
			}
			f.Fixed = true
		}
		all = append(all, f)
	}
	user := dockerUser{log: t.log}
	defer user.conn.Close()
	missing, err := user.missing()
	if err != nil {
		return all, err
	}
	if missing {
		f := finding.Finding{Part: "filter", Subject: "chain " + dockerUserChain, Text: "does not accept our links first"}
		if fix {
			if err := user.Assert(); err != nil {
				return all, err
			}
			f.Fixed = true
		}
		all = append(all, f)
	}
	return all, nil
}
