package integration

import "testing"

// TestApart has the tests whose hosts have mount namespaces of their own. They run
// beside each other, and beside no others: such a namespace holds what somebody else
// has mounted, and goes on holding it when that is unmounted.
func TestApart(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"DeploySSH": deploySSH, "Capistrano": capistranoPlugin, "Ansible": ansibleModule,
		"OriginsByDNS": originsByDNS, "OriginsByDNSChange": originsByDNSChange,
	} {
		t.Run(name, test)
	}
}
